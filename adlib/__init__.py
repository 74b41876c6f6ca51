"""adlib: find defective parts having seen only good ones."""
__version__ = "0.1.0"
