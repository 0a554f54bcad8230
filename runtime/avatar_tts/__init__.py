"""The reference TTS server: espeak-ng behind the HTTP contracts of the engines that avatars know.

It is the offline stand-in for Edge TTS, Tacotron2, CosyVoice and GPT-SoVITS: it answers as they do and does not
sound like them. espeak-ng is GPL-3. It is therefore loaded in this process and image only, and everything else
talks to it over HTTP. With ``--backend edge`` the same server speaks with Microsoft's voices, over the internet.
"""
