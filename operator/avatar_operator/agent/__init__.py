"""The node agent: reads this node's GPUs by NVML, and says what it sees as a GPUNode and as metrics."""
