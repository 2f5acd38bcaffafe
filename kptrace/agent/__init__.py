"""The program that runs on a node: it reads state, captures packets and sends probes, as told over
stdin.
"""
