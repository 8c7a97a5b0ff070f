"""`kvblock doctor`: looks for what keeps a server from being used, and says what to do about it.

    command     the options, the order of the checks and what is printed
    findings    what a check gives
    socket      whether somebody listens, and which process
    server      what the server answers: health, version, a lease, engines, pools, times
    process     what limits the server's process, where it runs on this machine
    memory      the memory of the pools, and where it is made
    state_dir   the disk and the journal of a server on this machine

A check is a short function that gives findings. It changes nothing, but for a lease under a name
that nobody has, which ends at once and never has a block.
"""
