# Stand-in for golang:1.26-bookworm, built by deploy/stand-ins.sh: the C compiler from the distribution, Go from this machine.
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
COPY go /usr/local/go
ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    GOPATH=/go GOTOOLCHAIN=local
WORKDIR /go
