"""The design that pki2fad replaces: codes verified over HTTP by FastAPI and pyotp, with no record of them.

$SEEDS names a file of JSON: account to seed in base32.
"""

import json
import os
from pathlib import Path

import pyotp
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI()
seeds: dict[str, str] = json.loads(Path(os.environ["SEEDS"]).read_text())


class Verification(BaseModel):
    account: str
    code: str


@app.post("/verify-2fa")
async def verify_2fa(asked: Verification) -> dict[str, bool]:
    seed = seeds.get(asked.account)
    if seed is None:
        raise HTTPException(status_code=500, detail="Seed not decrypted yet")
    return {"valid": pyotp.TOTP(seed).verify(asked.code, valid_window=1)}
