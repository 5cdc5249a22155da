"""What is installed beside our own code: pinned with hashes, under licences that allow it, without known vulnerabilities."""
