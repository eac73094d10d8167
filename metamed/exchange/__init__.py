"""The exchange with OpenML: records and OpenML's entities, publishing, retrieving, and a server of one's own."""
