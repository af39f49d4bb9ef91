"""Own pictures: look at a user's folder, report what is wrong with it, write settings that suit it.

In: a folder of pictures. Out: data/checked/DATASET and a settings file.
"""
