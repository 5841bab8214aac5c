"""What people look at: contact sheets, plots as SVG, and pages without scripts."""
