"""Dashboards for Grafana: written as Python, kept as JSON too, which `python -m deploy.grafana` makes of it."""
