"""What training is made of.

`loop` is the loop. `sources` says where the data lie; `data` opens, splits and prepares; `stages` says what is trained how long;
`optimisers`, `schedules` and `averages` change the weights; `checkpoints` keeps the state;
`sums` and `log` measure and write down.
"""
