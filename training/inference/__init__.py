"""What a finished run says of videos: prediction, drawings, export, web page."""
