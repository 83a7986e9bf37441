"""CLIPSeg's published weights: Hugging Face's whole models, and the authors' decoders, which need a CLIP beside them."""
