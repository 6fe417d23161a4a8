"""ONNX files: `writer` makes whole ones of a graph, `nodes` lists how operators become nodes."""
