package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// validity covers the life of a development cluster; clocks a day apart are fine.
const validity = 10 * 365 * 24 * time.Hour

func init() { programs["pki"] = runPKI }

// names collects a flag that may be given several times.
type names []string

func (n *names) String() string         { return strings.Join(*n, ",") }
func (n *names) Set(value string) error { *n = append(*n, value); return nil }

// runPKI writes the keys of a cluster into a directory: a CA (ca.crt, ca.key),
// the key that signs ServiceAccount tokens (sa.key, sa.pub), serving and client
// certificates. What is already there stays. A program of its own, because a
// machine need not have openssl.
func runPKI() int {
	flags := flag.NewFlagSet("pki", flag.ExitOnError)
	dir := flags.String("dir", ".", "directory to write into")
	var servers, clients names
	flags.Var(&servers, "server", "NAME=SAN,SAN…: a serving certificate (repeatable)")
	flags.Var(&clients, "client", "NAME=CN[,ORGANISATION]: a client certificate (repeatable)")
	_ = flags.Parse(os.Args[1:])
	if err := writePKI(*dir, servers, clients); err != nil {
		fmt.Fprintln(os.Stderr, "Error: writing the cluster's keys:", err)
		return 1
	}
	return 0
}

func writePKI(dir string, servers, clients []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, caKey, err := ensureCA(dir)
	if err != nil {
		return err
	}
	if err := ensureTokenKey(dir); err != nil {
		return err
	}
	for _, server := range servers {
		name, sans, _ := strings.Cut(server, "=")
		template := &x509.Certificate{
			Subject:     pkix.Name{CommonName: name},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		for _, san := range strings.Split(sans, ",") {
			if ip := net.ParseIP(san); ip != nil {
				template.IPAddresses = append(template.IPAddresses, ip)
			} else {
				template.DNSNames = append(template.DNSNames, san)
			}
		}
		if err := ensureSigned(dir, name, template, ca, caKey); err != nil {
			return err
		}
	}
	for _, client := range clients {
		name, subject, _ := strings.Cut(client, "=")
		common, organisation, _ := strings.Cut(subject, ",")
		template := &x509.Certificate{
			Subject:     pkix.Name{CommonName: common},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		if organisation != "" {
			template.Subject.Organization = []string{organisation}
		}
		if err := ensureSigned(dir, name, template, ca, caKey); err != nil {
			return err
		}
	}
	return nil
}

// ensureCA loads the CA or makes it.
func ensureCA(dir string) (*x509.Certificate, crypto.Signer, error) {
	if !exists(dir, "ca.crt") || !exists(dir, "ca.key") {
		key, err := newKey(dir, "ca.key")
		if err != nil {
			return nil, nil, err
		}
		template := &x509.Certificate{
			Subject:               pkix.Name{CommonName: "avatar-operator-devcluster"},
			IsCA:                  true,
			BasicConstraintsValid: true,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		if err := sign(dir, "ca.crt", template, template, key.Public(), key); err != nil {
			return nil, nil, err
		}
	}
	certificate, err := readBlock(dir, "ca.crt")
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, nil, err
	}
	keyBytes, err := readBlock(dir, "ca.key")
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParseECPrivateKey(keyBytes)
	return ca, key, err
}

func ensureTokenKey(dir string) error {
	if exists(dir, "sa.key") && exists(dir, "sa.pub") {
		return nil
	}
	key, err := newKey(dir, "sa.key")
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return writeBlock(dir, "sa.pub", "PUBLIC KEY", public)
}

func ensureSigned(dir, name string, template, ca *x509.Certificate, caKey crypto.Signer) error {
	if exists(dir, name+".crt") && exists(dir, name+".key") {
		return nil
	}
	key, err := newKey(dir, name+".key")
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return sign(dir, name+".crt", template, ca, key.Public(), caKey)
}

func sign(dir, file string, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-24 * time.Hour)
	template.NotAfter = time.Now().Add(validity)
	bytes, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return err
	}
	return writeBlock(dir, file, "CERTIFICATE", bytes)
}

func newKey(dir, file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	bytes, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeBlock(dir, file, "EC PRIVATE KEY", bytes)
}

func writeBlock(dir, file, kind string, bytes []byte) error {
	return os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600)
}

func readBlock(dir, file string) ([]byte, error) {
	bytes, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(bytes)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", file)
	}
	return block.Bytes, nil
}

func exists(dir, file string) bool {
	_, err := os.Stat(filepath.Join(dir, file))
	return !errors.Is(err, fs.ErrNotExist)
}
