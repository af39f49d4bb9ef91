"""Data: from official files or a folder of pictures to labelled images of a split.

In: downloads, folders, lists. Out: data/raw (acquire), data/splits (split), and batches of images.
Augmentation is here too: it makes training images of training images.
"""
