"""The engine for a GPU: a cohort's clients stacked, so that one call does a step of all of them.

    sheet    a round's work as arrays, made on the processor: whose example goes into which batch; one transfer
    steps    a step of local SGD of all clients: dense, convolutional, or any other network
    graphs   what is done again and again is recorded once and then started by one call
    card     a round: train, join, evaluate; one transfer back

Nothing in here needs a GPU: on the CPU it does the same arithmetic, call by call, and so it is tested.
"""
