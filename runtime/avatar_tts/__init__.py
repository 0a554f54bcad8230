"""The reference TTS server: espeak-ng behind the lip-sync engines' HTTP contract.

espeak-ng is GPL-3. It is therefore loaded in this process and image only, and everything else talks to it
over HTTP.
"""
