"""A trainer, and all that it starts, has the environment that training needs, and none of the site's secrets."""

import os

import psutil

from simulations.running.process import Trainer
from simulations.running.trainer import Assignment

SECRETS = {
    "SECRET_KEY": "only-the-site-knows",
    "DATABASE_URL": "postgresql://fedsite:password@db.example.org/fedsite",
    "REDIS_URL": "redis://:password@redis.example.org:6379/0",
    "EMAIL_URL": "smtp+tls://user:password@mail.example.org",
    "FEDSITE_METRICS_TOKEN": "a-token-of-the-metrics",
    "FEDSITE_ENV_FILE": "/etc/fedsite/env",
    "PGPASSWORD": "password",
    "AWS_SECRET_ACCESS_KEY": "password",
    "SOMETHING_NEW": "that nobody has thought of",
}
NEEDED = {
    "CUDA_VISIBLE_DEVICES": "0",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "RAY_ADDRESS": "192.0.2.10:6379",
    "LC_ALL": "C.UTF-8",
    "TMPDIR": "/tmp",
    "https_proxy": "http://127.0.0.1:9",
    "SSL_CERT_FILE": "/etc/ssl/cert.pem",
    "LD_LIBRARY_PATH": "/opt/cuda/lib64",
    "OMP_WAIT_POLICY": "passive",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    "FEDSITE_PLUGINS_DIR": "/opt/plugins",
    "FEDSITE_DATA_DIR": "/opt/data",
    "FAILPOINT": "completed:9",
}


async def test_a_trainer_inherits_what_it_needs_and_no_secret(monkeypatch):
    for name, value in (SECRETS | NEEDED).items():
        monkeypatch.setenv(name, value)
    trainer = await Trainer.start(Assignment(config={}, data_dir="/nonexistent"))
    try:
        has = psutil.Process(trainer.process.pid).environ()
        assert NEEDED.items() <= has.items()
        assert {name: os.environ[name] for name in ("PATH", "HOME")}.items() <= has.items()
        assert not SECRETS.keys() & has.keys()
        assert not {value for value in has.values() if value in SECRETS.values()}
    finally:
        await trainer.close()
