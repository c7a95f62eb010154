"""Results for elsewhere and from elsewhere: what a lab may publish, trackers, and what peers report. No torch."""
