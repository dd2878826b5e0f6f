"""Methods side by side: same images, network, augmentation and budget (`uic compare`)."""
