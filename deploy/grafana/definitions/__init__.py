"""Grafana's dashboards and alerts as code: a module for each, `flux` and `panels` for what they share."""
