"""The reference lip-sync runtime: a drawn avatar that speaks over WebRTC, on a CPU.

It keeps LiveTalking's command line and HTTP routes, so an operator cannot tell the two apart.
"""
