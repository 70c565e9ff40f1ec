"""Small backbones, pre-trained as large ones are: on some classes of a data set, to be transferred to others.

python -m benchmarks.pretraining FOLDER [fashion] [fashion-tops] [groceries] [digits]

writes checkpoints in Hugging Face format, FOLDER/fashion, FOLDER/fashion-tops and FOLDER/groceries (ResNets) and
FOLDER/digits (Whisper's encoder, with an untrained decoder), in some minutes each on two cores. What they are trained
on, `benchmarks.transfer` never tests: six of Fashion-MNIST's ten classes, half of the grocery products, and six digits
of FSDD by four of its six speakers.
"""
