"""Tests who reaches whom, through the workers: hosts with hosts, endpoints with endpoints."""
