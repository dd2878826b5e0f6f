"""The PASCAL VOC tasks of the paper (Table 5): classification, detection and segmentation."""
