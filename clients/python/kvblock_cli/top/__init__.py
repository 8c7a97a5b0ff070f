"""`kvblock top`: pools and engines live, on a screen that keys sort.

command     the options, and what is printed where there is no screen
looks       what the server said last, the rates since the look before, and the last minute
tables      the frame: a header and two tables that fit into the terminal
terminal    the screen, the keys and the signals
"""
