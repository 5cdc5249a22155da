"""Tests of what operators look at: Prometheus' configuration and rules, dashboards, a real Prometheus beside the product."""
