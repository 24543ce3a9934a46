"""Networks that turn a picture into a map of features: ResNet and the frozen DINOv2."""
