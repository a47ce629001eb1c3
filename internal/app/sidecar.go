// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/outbound"
	"github.com/medirecord/medirecord/internal/policy"
	"github.com/medirecord/medirecord/internal/sidecar"
	"github.com/medirecord/medirecord/internal/token"
)

// DevIssuer is the issuer of development tokens. No name under .invalid can
// exist (RFC 6761), and outside development it is refused by name.
const DevIssuer = "https://issuer.medirecord-dev.invalid"

// Sidecar runs the sidecar until the context ends, and tells ready where it
// listens. It needs no database and takes no database URL.
func Sidecar(ctx context.Context, cfg *Config, log *slog.Logger, ready func([]net.Addr)) error {
	relaxGC()
	if err := cfg.checkFailMode(); err != nil {
		return err
	}
	if err := cfg.need("the sidecar", "MEDIRECORD_CONTEXT_KEY_FILE", "MEDIRECORD_SIDECAR_STATE"); err != nil {
		return err
	}
	if cmp.Or(cfg.DatabaseURL, cfg.TrailDatabaseURL, cfg.KeystoreDatabaseURL, cfg.WorkerDatabaseURL,
		cfg.MigrateDatabaseURL, cfg.MigrateKeystoreURL, cfg.BootstrapURL) != "" {
		return errors.New("the sidecar was given a database URL: who holds the context key must not hold database credentials; take them out of its environment")
	}
	keys, err := readContextKeys(cfg.ContextKeyFile)
	if err != nil {
		return err
	}
	services, err := readServiceTokens(cfg.ServiceTokens)
	if err != nil {
		return err
	}
	policies, err := policy.NewWatcher(ctx, policy.WatchConfig{
		Path: cmp.Or(cfg.Policy, cfg.PolicyDir),
		Refused: func(ctx context.Context, reason string) {
			log.ErrorContext(ctx, "ALERT policy file refused, the old one stays in force", slog.String("reason", reason))
		},
		Changed: func(ctx context.Context, revision string) {
			log.WarnContext(ctx, "policy file in force", slog.String("revision", revision))
		},
	})
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	var service atomic.Pointer[sidecar.Service]
	verifier, err := newVerifier(cfg, log, func() med.PracticeID {
		if s := service.Load(); s != nil {
			return s.OnlyPractice(med.PracticeID(cfg.TenantID))
		}
		return ""
	})
	if err != nil {
		return err
	}
	defer verifier.Close()
	s, err := sidecar.New(sidecar.Config{
		Verifier: verifier, Policy: policies.Engine, Minter: token.NewMinter(keys[0], time.Now), Attester: token.NewAttester(keys), State: cfg.SidecarState,
		Services: services, GrantFor: time.Duration(cfg.GrantMinutes) * time.Minute, StrictReads: cfg.StrictReads, PatientsAnHour: cfg.PatientsAnHour,
		Log: log, Now: time.Now,
	})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	service.Store(s)
	server, err := s.Listening(ctx, sidecar.Listen{
		Addrs:   strings.Split(cmp.Or(cfg.SidecarListen, "127.0.0.1:50051,[::1]:50051"), ","),
		TLSCert: cfg.TLSCert, TLSKey: cfg.TLSKey, TLSCA: cfg.TLSCA, Group: cfg.SidecarGroup, Dev: cfg.Dev(),
	})
	if err != nil {
		return err
	}
	go verifier.Run(ctx)
	watching := make(chan error, 1)
	go func() { watching <- policies.Run(ctx) }()
	serving := make(chan error, 1)
	go func() { serving <- server.Serve() }()
	ready(server.Addrs())
	select {
	case <-ctx.Done():
	case err = <-watching:
	case err = <-serving:
	}
	server.Stop()
	return err
}

// newVerifier makes the verifier of the configured issuers.
func newVerifier(cfg *Config, log *slog.Logger, only func() med.PracticeID) (*token.Verifier, error) {
	issuers := cfg.Issuers
	if cfg.JWKSURI != "" {
		if err := cfg.need("an issuer", "MEDIRECORD_TOKEN_ISSUER", "MEDIRECORD_TOKEN_AUDIENCE"); err != nil {
			return nil, err
		}
		issuers = append([]token.Issuer{{Issuer: cfg.TokenIssuer, Audience: cfg.TokenAudience, JWKS: cfg.JWKSURI}}, issuers...)
	}
	if len(issuers) == 0 {
		return nil, errors.New("the sidecar knows no issuer: set CORESDK_JWKS_URI, MEDIRECORD_TOKEN_ISSUER and MEDIRECORD_TOKEN_AUDIENCE, or list issuers in medirecord.yaml")
	}
	for _, i := range issuers {
		if !cfg.Dev() && i.Issuer == DevIssuer {
			return nil, errors.New("the development issuer is configured outside development: its key is anybody's; configure your own identity provider")
		}
		// It would be refused at each fetch; better to refuse the start.
		if !cfg.Dev() && !strings.HasPrefix(i.JWKS, "https://") {
			return nil, fmt.Errorf("the key set of issuer %s must be an https URL: who can change it on the way can sign tokens", i.Issuer)
		}
	}
	allow, err := prefixes("MEDIRECORD_OUTBOUND_ALLOW", cfg.OutboundAllow)
	if err != nil {
		return nil, err
	}
	client := outbound.New(outbound.Config{Dev: cfg.Dev(), Allow: allow})
	return token.NewVerifier(token.Config{Issuers: issuers, DefaultPractice: only, Get: client.Get, Now: time.Now, Log: log})
}

func readContextKeys(path string) ([]token.ContextKey, error) {
	b, err := readSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("MEDIRECORD_CONTEXT_KEY_FILE: %w", err)
	}
	keys, err := token.ParseContextKeys(b)
	if err != nil {
		return nil, fmt.Errorf("MEDIRECORD_CONTEXT_KEY_FILE: %w", err)
	}
	return keys, nil
}

// readSecretFile reads a file that nobody else may read.
func readSecretFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others: run chmod 600 %s", path, path)
	}
	return os.ReadFile(path) //nolint:gosec // the operator's own file
}

// readServiceTokens reads lines of a service's name and the SHA-256 of its
// token in hex.
func readServiceTokens(path string) (map[string][sha256.Size]byte, error) {
	out := map[string][sha256.Size]byte{}
	if path == "" {
		return out, nil
	}
	b, err := readSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("MEDIRECORD_SERVICE_TOKENS: %w", err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(b)))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		var sum [sha256.Size]byte
		if len(fields) != 2 || len(fields[1]) != hex.EncodedLen(len(sum)) {
			return nil, fmt.Errorf("MEDIRECORD_SERVICE_TOKENS line %d: want a service's name and 64 hexadecimal digits", n)
		}
		if _, err := hex.Decode(sum[:], []byte(fields[1])); err != nil {
			return nil, fmt.Errorf("MEDIRECORD_SERVICE_TOKENS line %d: want a service's name and 64 hexadecimal digits", n)
		}
		out[fields[0]] = sum
	}
	return out, lines.Err()
}
