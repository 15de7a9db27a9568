"""Networks: wide ResNets, any timm classifier, and input normalisation as part of the network."""
