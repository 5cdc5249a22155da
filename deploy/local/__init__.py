"""The whole product on one machine without Docker: servers from wheels, a small supervisor, `make demo|up|down|clean`.

Nothing here is meant for production; deploy/ holds other ways for that. Data, logs and state stay under var/.
"""
