// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/medirecord/medirecord/internal/witness"
)

// WitnessOptions are the flags of `medirecord witness`.
type WitnessOptions struct {
	Listen  string
	State   string   // folder of what it has cosigned
	Key     string   // file of its signing keys
	NewKey  string   // name of the key to make when there is none
	Logs    []string // verifier keys
	LogFile string   // more of them, one a line
	TLSCert string
	TLSKey  string
}

// Witness runs a witness until the context ends, and tells ready where it
// listens and its verifier keys. It takes no secret of a log's: whoever holds
// those is who it is to watch.
func Witness(ctx context.Context, cfg *Config, opt WitnessOptions, log *slog.Logger, ready func(addr net.Addr, vkeys []string)) (err error) {
	if err := cfg.witnessOnly(); err != nil {
		return err
	}
	w, err := openWitness(opt, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	ln, err := listenWitness(ctx, opt)
	if err != nil {
		return err
	}
	server := w.Server()
	serving := make(chan error, 1)
	go func() { serving <- server.Serve(ln) }()
	ready(ln.Addr(), w.VKeys())
	select {
	case err := <-serving:
		return fmt.Errorf("witness: %w", err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	return server.Shutdown(end) // what is being saved is saved, and answered
}

// witnessOnly refuses what would make the witness one with the witnessed.
func (c *Config) witnessOnly() error {
	if c.TrailKeyFile != "" || c.ContextKeyFile != "" || c.DatabaseURL != "" || c.TrailDatabaseURL != "" || c.KeystoreDatabaseURL != "" ||
		c.WorkerDatabaseURL != "" || c.SealerDatabaseURL != "" || c.AuditorDatabaseURL != "" || c.MigrateDatabaseURL != "" || c.BootstrapURL != "" {
		return errors.New("the witness was given a key or a database URL of the log's side: a witness that its log can change is none; take them out of its environment, and better, let others run it")
	}
	return nil
}

func openWitness(opt WitnessOptions, log *slog.Logger) (*witness.Witness, error) {
	if opt.NewKey != "" {
		if err := witness.New(opt.State, opt.Key, opt.NewKey); err != nil {
			return nil, err
		}
	}
	keys, err := readSecretFile(opt.Key)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no key %s: --new-key NAME makes a new witness", opt.Key)
	}
	if err != nil {
		return nil, fmt.Errorf("key of the witness: %w", err)
	}
	logs := opt.Logs
	if opt.LogFile != "" {
		more, err := os.ReadFile(opt.LogFile)
		if err != nil {
			return nil, fmt.Errorf("file of logs: %w", err)
		}
		logs = append(logs, keyLines(more)...)
	}
	return witness.Open(witness.Config{State: opt.State, Keys: keys, Logs: logs, Log: log})
}

// keyLines returns the lines of a file of keys that are keys.
func keyLines(text []byte) (out []string) {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// listenWitness listens with TLS, or on loopback only. What passes is public
// and signed; but who can change it on the way can keep a cosignature back.
func listenWitness(ctx context.Context, opt WitnessOptions) (net.Listener, error) {
	if (opt.TLSCert == "") != (opt.TLSKey == "") {
		return nil, errors.New("--tls-cert and --tls-key belong together: give both or none")
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", opt.Listen)
	if err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	if opt.TLSCert == "" {
		if a, ok := ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
			return nil, errors.Join(fmt.Errorf("--listen %s is not on loopback: give --tls-cert and --tls-key, or listen on loopback behind a proxy", opt.Listen), ln.Close())
		}
		return ln, nil
	}
	cert, err := tls.LoadX509KeyPair(opt.TLSCert, opt.TLSKey)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--tls-cert: %w", err), ln.Close())
	}
	// 1.2 too: other logs' clients are not ours to choose.
	return tls.NewListener(ln, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}), nil
}
