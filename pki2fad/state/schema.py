"""The tables of the state file: how they are made, and made anew from those of earlier versions."""

# Migrations in order; the schema's version is how many were applied.
MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
    CREATE TABLE keyslots (fingerprint TEXT PRIMARY KEY, wrapped BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE accounts (
        name TEXT PRIMARY KEY, algorithm TEXT NOT NULL, digits INTEGER NOT NULL,
        period INTEGER NOT NULL, sealed BLOB NOT NULL, digest BLOB NOT NULL, last_step INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE gone (
        digest BLOB PRIMARY KEY, period INTEGER NOT NULL, last_step INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE seed_files (name TEXT PRIMARY KEY, digest BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE periods (
        period INTEGER PRIMARY KEY, lease INTEGER NOT NULL DEFAULT 0, floor INTEGER NOT NULL DEFAULT 0
    );
    """,
    """
    ALTER TABLE accounts ADD COLUMN failed_units REAL NOT NULL DEFAULT 0;
    ALTER TABLE accounts ADD COLUMN failed_at REAL NOT NULL DEFAULT 0;
    ALTER TABLE accounts ADD COLUMN marks BLOB NOT NULL DEFAULT x'';
    CREATE TABLE slots (slot INTEGER PRIMARY KEY, units REAL NOT NULL, at REAL NOT NULL);
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    INSERT INTO secrets VALUES ('throttle', randomblob(32));
    """,
    """
    ALTER TABLE accounts ADD COLUMN offset INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE accounts ADD COLUMN drift BLOB NOT NULL DEFAULT x'';
    CREATE TABLE stretches (start REAL NOT NULL, until REAL NOT NULL);
    CREATE TABLE spent (since REAL NOT NULL, until REAL NOT NULL);
    """,
    """
    CREATE TABLE successors (
        name TEXT PRIMARY KEY, algorithm TEXT NOT NULL, digits INTEGER NOT NULL,
        period INTEGER NOT NULL, sealed BLOB NOT NULL, digest BLOB NOT NULL, last_step INTEGER NOT NULL,
        deadline INTEGER, cutover INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE accounts ADD COLUMN resets INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE accounts ADD COLUMN reset_at BLOB NOT NULL DEFAULT x'';
    """,
    """
    CREATE TABLE new_accounts (
        name TEXT PRIMARY KEY, label TEXT NOT NULL,
        algorithm TEXT NOT NULL, digits INTEGER NOT NULL, period INTEGER NOT NULL,
        sealed BLOB NOT NULL, fixed BLOB NOT NULL, last_step INTEGER NOT NULL,
        offset INTEGER NOT NULL, drift BLOB NOT NULL, used INTEGER,
        failed_units REAL NOT NULL, failed_at REAL NOT NULL, marks BLOB NOT NULL,
        resets INTEGER NOT NULL, reset_at BLOB NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO new_accounts SELECT name, 'main', algorithm, digits, period, sealed,
        CAST(randomblob(16) || zeroblob(16) || digest || zeroblob(6) || CAST(name AS BLOB) AS BLOB),
        last_step, offset, drift, NULL, failed_units, failed_at, marks, resets, reset_at FROM accounts;
    DROP TABLE accounts;
    ALTER TABLE new_accounts RENAME TO accounts;
    CREATE TABLE authenticators (
        name TEXT NOT NULL, label TEXT NOT NULL,
        algorithm TEXT NOT NULL, digits INTEGER NOT NULL, period INTEGER NOT NULL,
        sealed BLOB NOT NULL, fixed BLOB NOT NULL, last_step INTEGER NOT NULL,
        offset INTEGER NOT NULL, drift BLOB NOT NULL, used INTEGER,
        position INTEGER NOT NULL, PRIMARY KEY (name, label)
    ) WITHOUT ROWID;
    CREATE TABLE new_successors (
        name TEXT NOT NULL, label TEXT NOT NULL,
        algorithm TEXT NOT NULL, digits INTEGER NOT NULL, period INTEGER NOT NULL,
        sealed BLOB NOT NULL, fixed BLOB NOT NULL, last_step INTEGER NOT NULL,
        deadline INTEGER, cutover INTEGER NOT NULL, PRIMARY KEY (name, label)
    ) WITHOUT ROWID;
    INSERT INTO new_successors SELECT name, 'main', s.algorithm, s.digits, s.period, s.sealed,
        CAST(
            substr(a.fixed, 1, 16) || zeroblob(16) || s.digest || zeroblob(6) || CAST(name AS BLOB) AS BLOB
        ),
        s.last_step, deadline, cutover FROM successors AS s JOIN accounts AS a USING (name);
    DROP TABLE successors;
    ALTER TABLE new_successors RENAME TO successors;
    CREATE TABLE ids (name TEXT PRIMARY KEY, id BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE recovery (
        name TEXT PRIMARY KEY, key BLOB NOT NULL, codes BLOB NOT NULL, used INTEGER NOT NULL,
        made INTEGER NOT NULL
    ) WITHOUT ROWID;
    ALTER TABLE slots ADD COLUMN cost INTEGER NOT NULL DEFAULT 3;
    """,
)
