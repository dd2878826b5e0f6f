"""Compare methods with the same images, network, augmentation and budget (`uic compare`)."""
