# The project's images: `docker build --target operator|runtime|tts|turn|tts-edge .`, or `images/build` for the first
# three; the other two are optional, and the last is for those who have internet.
#
# BASE is any Debian 12 (bookworm): the one from a registry, or one that images/build prepares from Debian's
# packages. The final images start from scratch: they hold Python, the locked packages, our code, and no
# package manager; a small shell is left for looking around with `kubectl exec`. The operator's holds the web console
# where scripts/console has built it: images/build sees to that, a `docker build` by hand comes after it.
#
# Three optional secrets carry what a build behind a proxy or a private mirror needs, and end up in no layer:
# ca (a CA bundle, at /run/secrets/ca), pip (a pip.conf), apt (an apt.conf); the latter two may name the first.
ARG BASE=debian:bookworm-slim

# ---------------------------------------------------------------- Python, from Debian's packages
FROM ${BASE} AS python
ENV DEBIAN_FRONTEND=noninteractive
RUN --mount=type=secret,id=ca \
    --mount=type=secret,id=apt,target=/etc/apt/apt.conf.d/99build \
    apt-get update -q \
    && apt-get install -y -q --no-install-recommends ca-certificates python3-minimal libpython3-stdlib \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*

# ---------------------------------------------------------------- the file system that the images start from
# Whole packages by name, so that what is inside is a list that one can read, and scanners still find it
# in /var/lib/dpkg/status.d.
FROM python AS rootfs
RUN set -eu; \
    packages='base-files netbase media-types dash libc6 libgcc-s1 libstdc++6 zlib1g libcrypt1 \
        python3-minimal python3.11-minimal libpython3-stdlib libpython3.11-minimal libpython3.11-stdlib \
        libbz2-1.0 liblzma5 libffi8 libexpat1 libssl3 libsqlite3-0 libuuid1 libselinux1 libpcre2-8-0 libacl1 libattr1'; \
    mkdir -p /slim/usr/bin /slim/usr/sbin /slim/usr/lib /slim/usr/lib64 /slim/var/lib/dpkg/status.d /slim/etc/ssl/certs; \
    for link in bin sbin lib lib64; do ln -s "usr/$link" "/slim/$link"; done; \
    for package in $packages; do \
        dpkg-query -W "$package" > /dev/null 2>&1 || continue; \
        dpkg-query -s "$package" > "/slim/var/lib/dpkg/status.d/$package"; \
        dpkg -L "$package" | sed -E 's#^/(bin|sbin|lib|lib64)(/|$)#/usr/\1\2#' >> /files; \
    done; \
    printf '%s\n' /usr/bin/cat /usr/bin/cp /usr/bin/env /usr/bin/id /usr/bin/ls /usr/bin/sleep /usr/bin/sh \
        /usr/lib/python3.11/__pycache__ >> /files; \
    # Folders are made as needed; only what is a file or a link is copied by name.
    sort -u /files | while read -r path; do \
        case "$path" in /usr/share/doc/*|/usr/share/man/*|/usr/share/locale/*|/usr/share/lintian/*) continue;; esac; \
        if [ -L "$path" ] || [ -f "$path" ]; then echo "$path"; \
        elif [ -d "$path" ]; then mkdir -p "/slim$path"; fi; \
    done > /copy; \
    tar -C / --no-recursion -cf - -T /copy | tar -C /slim -xf -; \
    cd /slim/usr/lib/python3.11 && rm -rf lib2to3 pydoc_data ensurepip turtledemo idlelib tkinter unittest/test distutils test \
        ../x86_64-linux-gnu/gconv ../aarch64-linux-gnu/gconv; \
    cp /etc/ssl/certs/ca-certificates.crt /slim/etc/ssl/certs/ca-certificates.crt; \
    ldconfig -r /slim; \
    echo 'root:x:0:0:root:/root:/usr/sbin/nologin' > /slim/etc/passwd; \
    echo 'nonroot:x:65532:65532:nonroot:/tmp:/usr/sbin/nologin' >> /slim/etc/passwd; \
    printf 'root:x:0:\nnonroot:x:65532:\n' > /slim/etc/group; \
    mkdir -p /slim/tmp /slim/app /slim/proc /slim/sys /slim/dev /slim/run; chmod 1777 /slim/tmp; \
    # Byte code is made here, once: a read-only container could not keep it, and every start would pay.
    python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -s /slim /slim/usr/lib/python3.11; \
    chroot /slim python3 -c 'import asyncio, bz2, ctypes, hashlib, json, lzma, multiprocessing, sqlite3, ssl, uuid, zlib'

FROM scratch AS slim
COPY --from=rootfs /slim /
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /app

# ---------------------------------------------------------------- locked packages, one folder an image
FROM python AS pip
RUN --mount=type=secret,id=ca \
    --mount=type=secret,id=apt,target=/etc/apt/apt.conf.d/99build \
    apt-get update -q \
    && apt-get install -y -q --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt \
    && python3 -m venv /pip
# install LOCK: exact versions by hash, wheels only, no tests or headers, byte code made ahead.
RUN printf '%s\n' '#!/bin/sh' 'set -eu' \
    '/pip/bin/pip install --disable-pip-version-check --no-compile --require-hashes --no-deps --only-binary=:all: --target=/site -r "$1"' \
    'rm -rf /site/bin' \
    'find /site -type d \( -name tests -o -name test -o -name include \) -prune -exec rm -rf {} +' \
    'find /site -type f \( -name "*.pyi" -o -name "*.pyx" -o -name "*.pxd" -o -name "*.c" -o -name "*.h" -o -name "*.a" \) -delete' \
    '/pip/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash -s /site -p /usr/local/lib/python3.11/dist-packages /site' \
    > /usr/local/bin/install-locked && chmod +x /usr/local/bin/install-locked

FROM pip AS operator-packages
COPY locks/operator.txt /lock.txt
RUN --mount=type=secret,id=ca \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    install-locked /lock.txt

FROM pip AS runtime-packages
COPY locks/runtime.txt /lock.txt
RUN --mount=type=secret,id=ca \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    install-locked /lock.txt

FROM pip AS tts-packages
COPY locks/tts.txt /lock.txt
RUN --mount=type=secret,id=ca \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    install-locked /lock.txt

FROM pip AS tts-edge-packages
COPY locks/tts-edge.txt /lock.txt
RUN --mount=type=secret,id=ca \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    install-locked /lock.txt

# ---------------------------------------------------------------- coturn, with the libraries that it loads
FROM python AS coturn
RUN --mount=type=secret,id=ca \
    --mount=type=secret,id=apt,target=/etc/apt/apt.conf.d/99build \
    apt-get update -q \
    && apt-get install -y -q --no-install-recommends coturn \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*
RUN set -eu; \
    mkdir -p /coturn/var/lib/dpkg/status.d; \
    { echo /usr/bin/turnserver; ldd /usr/bin/turnserver | grep -o '/[^ ]*'; } | while read -r path; do \
        # Where it lies, not by which of the merged folders the loader calls it.
        real="$(readlink -f "$path")"; \
        folder="/coturn$(readlink -f "$(dirname "$path")")"; \
        mkdir -p "$folder"; \
        cp -a "$real" "/coturn$(dirname "$real")/"; \
        [ "$real" = "$(readlink -f "$(dirname "$path")")/$(basename "$path")" ] || cp -a "$path" "$folder/"; \
        { dpkg-query -S "$real" || dpkg-query -S "${real#/usr}"; } 2> /dev/null | cut -d: -f1 | sort -u | while read -r package; do \
            dpkg-query -s "$package" > "/coturn/var/lib/dpkg/status.d/$package"; \
        done; \
    done; \
    ls /coturn/var/lib/dpkg/status.d | grep -q '^coturn$'

# ---------------------------------------------------------------- our code, byte code included
FROM python AS operator-code
COPY operator/avatar_operator /app/avatar_operator
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM python AS runtime-code
COPY runtime/avatar_runtime /app/avatar_runtime
COPY runtime/data/avatars /app/data/avatars
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app/avatar_runtime

FROM python AS turn-code
COPY runtime/avatar_turn /app/avatar_turn
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM python AS tts-code
COPY runtime/avatar_tts /app/avatar_tts
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

# ---------------------------------------------------------------- the images
# Each ends with its program saying --help: a missing library fails the build, not the first pod.
FROM slim AS tts
LABEL org.opencontainers.image.title="avatar-operator reference TTS server" \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-3.0-or-later"
COPY --from=tts-packages /site /usr/local/lib/python3.11/dist-packages
COPY --from=tts-code /app /app
USER 65532:65532
EXPOSE 5002
RUN ["python3", "-m", "avatar_tts", "--help"]
RUN ["python3", "-c", "import avatar_tts.espeak, avatar_tts.codec; avatar_tts.codec.warm()"]
ENTRYPOINT ["python3", "-m", "avatar_tts"]

# Microsoft's voices by the package edge-tts behind the same contracts. Its pods need a way to the internet.
FROM slim AS tts-edge
LABEL org.opencontainers.image.title="avatar-operator speech server with Microsoft's voices" \
      org.opencontainers.image.licenses="Apache-2.0 AND LGPL-3.0-only"
COPY --from=tts-edge-packages /site /usr/local/lib/python3.11/dist-packages
COPY --from=tts-code /app /app
USER 65532:65532
EXPOSE 5002
RUN ["python3", "-m", "avatar_tts", "--help"]
RUN ["python3", "-c", "import avatar_tts.backends, avatar_tts.codec; avatar_tts.codec.warm(); avatar_tts.backends.EdgeBackend()"]
ENTRYPOINT ["python3", "-m", "avatar_tts", "--backend", "edge"]

# The relay between clients and pods (docs/media.md), as a user without rights: it binds no port below 1024.
FROM slim AS turn
LABEL org.opencontainers.image.title="avatar-operator TURN relay (coturn)" \
      org.opencontainers.image.licenses="Apache-2.0 AND BSD-3-Clause"
COPY --from=coturn /coturn /
COPY --from=turn-code /app /app
USER 65532:65532
EXPOSE 3478
RUN ["turnserver", "--log-file=stdout", "--version"]
ENTRYPOINT ["python3", "-m", "avatar_turn"]

FROM slim AS runtime
LABEL org.opencontainers.image.title="avatar-operator reference lip-sync runtime" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=runtime-packages /site /usr/local/lib/python3.11/dist-packages
COPY --from=runtime-code /app /app
USER 65532:65532
EXPOSE 8615
RUN ["python3", "-m", "avatar_runtime", "--help"]
ENTRYPOINT ["python3", "-m", "avatar_runtime"]

FROM slim AS operator
LABEL org.opencontainers.image.title="avatar-operator" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=operator-packages /site /usr/local/lib/python3.11/dist-packages
COPY --from=operator-code /app /app
USER 65532:65532
EXPOSE 8080
RUN ["python3", "-m", "avatar_operator", "--help"]
ENTRYPOINT ["python3", "-m", "avatar_operator"]
