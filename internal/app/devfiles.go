// SPDX-License-Identifier: Apache-2.0

package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/mod/sumdb/note"

	"github.com/medirecord/medirecord/internal/cosign"
)

// devFiles are the files of a development server under its folder. Every
// secret is made once, 0600, and kept, so that a second start finds its data.
type devFiles struct{ dir string }

func (d devFiles) path(name ...string) string {
	return filepath.Join(append([]string{d.dir}, name...)...)
}

func (d devFiles) postgres() string   { return d.path("postgres") }
func (d devFiles) keeper() string     { return d.path("keeper") }
func (d devFiles) contextKey() string { return d.path("sidecar", "context.key") }
func (d devFiles) state() string      { return d.path("sidecar", "state.jsonl") }
func (d devFiles) services() string   { return d.path("sidecar", "services") }
func (d devFiles) issuerKey() string  { return d.path("issuer.key") }

// trailPolicy says whose signatures make a checkpoint of the trail good.
func (d devFiles) trailPolicy() string { return d.path("trail-policy.txt") }
func (d devFiles) devJSON() string     { return d.path("dev.json") }
func (d devFiles) service(name string) string {
	return d.path("services", name+".token")
}

// devServices are the services that get a token in development.
var devServices = []string{"import", "worker", "operator"}

// hold makes the folder and takes its lock: two development servers on one
// folder would take each other's dev.json away. The lock ends with the process.
func (d devFiles) hold() (*os.File, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := os.OpenFile(d.path("lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another development server runs on %s: stop it, or choose another --data", d.dir)
		}
		return nil, fmt.Errorf("data folder: %w", err)
	}
	return lock, nil
}

// prepare makes the folders and the secrets that are missing.
func (d devFiles) prepare() error {
	for _, p := range []string{d.path("sidecar"), d.path("services"), d.path("secrets"), d.path("sink")} {
		if err := os.MkdirAll(p, 0o700); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
	}
	// PostgreSQL runs as another user when we are root: it must get through to
	// its own folder, which it alone may read.
	if err := os.Chmod(d.dir, 0o711); err != nil { //nolint:gosec // passing through is not reading
		return err
	}
	if _, err := d.once(d.contextKey(), func() (string, error) {
		var k [32]byte
		_, _ = rand.Read(k[:])
		return "dev1:" + base64.StdEncoding.EncodeToString(k[:]) + "\n", nil
	}); err != nil {
		return err
	}
	var lines strings.Builder
	for _, name := range devServices {
		token, err := d.once(d.service(name), randomText)
		if err != nil {
			return err
		}
		sum := sha256.Sum256([]byte(token))
		fmt.Fprintf(&lines, "%s %s\n", name, hex.EncodeToString(sum[:]))
	}
	return writeFile(d.services(), []byte(lines.String()))
}

// password returns the database password of one of our roles, made once.
func (d devFiles) password(role string) (string, error) {
	return d.once(d.path("secrets", role), randomText)
}

func randomText() (string, error) {
	var b [24]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// once returns the file's content, made first when there is none.
func (d devFiles) once(path string, make func() (string, error)) (string, error) {
	b, err := os.ReadFile(path) //nolint:gosec // our own folder
	if err == nil && len(b) > 0 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	text, err := make()
	if err != nil {
		return "", err
	}
	return text, writeFile(path, []byte(text))
}

// devTrailOrigin is the name of a development server's log.
const devTrailOrigin = "dev.medirecord.example/audit"

// trailKey makes the key that signs the log's checkpoints, once.
func (d devFiles) trailKey() (string, error) {
	return d.once(d.path("trail.key"), func() (string, error) {
		signer, _, err := note.GenerateKey(rand.Reader, devTrailOrigin+"/1")
		return signer + "\n", err
	})
}

// logKeys returns the verifier keys of the log: one for each line of its key file.
func (d devFiles) logKeys() (vkeys []string, err error) {
	text, err := d.trailKey()
	if err != nil {
		return nil, err
	}
	for _, line := range keyLines([]byte(text)) {
		v, err := cosign.VerifierKey(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: move it away to get a new one", d.path("trail.key"), err)
		}
		vkeys = append(vkeys, v)
	}
	return vkeys, nil
}

// signingKey returns the development issuer's key, made once.
func (d devFiles) signingKey() (*ecdsa.PrivateKey, error) {
	text, err := d.once(d.issuerKey(), func() (string, error) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return "", err
		}
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return "", err
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
	})
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("%s is not a PEM key: move it away to get a new one", d.issuerKey())
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s is not a key: move it away to get a new one", d.issuerKey())
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not an ECDSA key: move it away to get a new one", d.issuerKey())
	}
	return ec, nil
}

// writeFile writes the file whole or not at all, 0600.
func writeFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// DevInfo is dev.json: how to reach a development server, for its tools and
// tests. It holds secrets of that server and is readable by its owner only.
type DevInfo struct {
	API       string         `json:"api"`
	Ops       string         `json:"ops"`
	Sidecar   string         `json:"sidecar"`
	JWKS      string         `json:"jwks"`
	Witness   string         `json:"witness"`
	WorkerOps string         `json:"worker_ops"`
	PIDs      map[string]int `json:"pids"`
	Database  struct {
		Socket       string `json:"socket"`
		Port         int    `json:"port"`
		Name         string `json:"name"`
		AppURL       string `json:"app_url"`
		TrailURL     string `json:"trail_url"`
		KeystoreURL  string `json:"keystore_url"`
		AuditorURL   string `json:"auditor_url"`
		SuperuserURL string `json:"superuser_url"`
	} `json:"database"`
	Practices []string          `json:"practices"`
	Patients  []DevPatient      `json:"patients"`
	Tokens    map[string]string `json:"tokens"`
}

// DevPatient is a line of dev.json.
type DevPatient struct {
	ID       string `json:"id"`
	Practice string `json:"practice_id"`
}

// ReadDevInfo reads the dev.json of a running development server.
func ReadDevInfo(dir string) (*DevInfo, error) {
	b, err := os.ReadFile(devFiles{dir}.devJSON())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no development server is running on %s: start one with `medirecord dev --data %s`", dir, dir)
	}
	if err != nil {
		return nil, err
	}
	var info DevInfo
	if err := json.Unmarshal(b, &info); err != nil {
		return nil, fmt.Errorf("%s does not read: start the development server again", devFiles{dir}.devJSON())
	}
	return &info, nil
}

// DefaultDataDir is where a development server keeps its data unless told: a
// place that PostgreSQL's own user can reach when we are root.
func DefaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/medirecord-dev"
	}
	if d := os.Getenv("XDG_DATA_HOME"); d != "" {
		return filepath.Join(d, "medirecord-dev")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "medirecord-dev")
	}
	return filepath.Join(home, ".local", "share", "medirecord-dev")
}
