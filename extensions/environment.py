"""What the processes that import foreign code learn of our environment: trainers and whoever describes a plug-in."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# What is not named here, such as SECRET_KEY, they never have.
INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TEMP", "TMP", "XDG_*", "TZ", "LANG", "LANGUAGE", "LC_*"),
    *("VIRTUAL_ENV", "PYTHON*", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*", "MALLOC_*", "GLIBC_TUNABLES"),
    *("OMP_*", "MKL_*", "OPENBLAS_*", "GOMP_*", "KMP_*", "GOTO_*", "BLIS_*", "VECLIB_*"),
    *("PYTORCH_*", "TORCH_*", "TORCHINDUCTOR_*", "CUDA_*", "CUBLAS_*", "CUDNN_*", "NVIDIA_*", "NCCL_*"),
    *("HIP_*", "ROCR_*", "RAY_*", "GLOO_*"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("FEDSITE_DATA_DIR", "FEDSITE_CHECKPOINT_DIR", "FEDSITE_PLUGINS*", "FAILPOINT"),
)


def environment() -> dict[str, str]:
    """What a child of ours is started with, and whatever it starts itself."""
    return {
        name: value for name, value in os.environ.items() if any(fnmatchcase(name, known) for known in INHERITED)
    } | ONE_THREAD
