"""Backups off the host: an encrypted archive in a folder, on another host over SSH, or in an S3-compatible store."""
