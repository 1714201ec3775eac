"""How the weights of `birds_resnet18` were made: `python -m pretraining --out FILE`."""
