"""Networks that name a class for every pixel: images B x C x H x W -> logits B x K x H x W, at any size."""
