"""What training is made of.

`loop` is the loop. `sources` says where the data lie; `data` opens, splits and prepares them, and
`class_presence` checks that every class can be learned; `stages` says what is trained how long;
`optimisers`, `schedules` and `averages` change the weights; `checkpoints` keeps the state;
`sums` and `log` measure and write down.
"""
