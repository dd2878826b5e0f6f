"""A run's network on other tasks: few-shot classification and PASCAL VOC (UIC, section 4.4)."""
