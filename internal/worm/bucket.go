// SPDX-License-Identifier: Apache-2.0

package worm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/medirecord/medirecord/internal/outbound"
)

// patience bounds each call to a bucket.
const patience = 30 * time.Second

// bucket is a bucket with object lock, below a prefix.
type bucket struct {
	client *minio.Client
	close  func()
	name   string
	prefix string // "" or ends in a slash
	retain time.Duration
	now    func() time.Time
}

func (c Config) openBucket(u *url.URL) (*bucket, error) {
	q := u.Query()
	for k := range q {
		if !slices.Contains([]string{"endpoint", "region", "retain"}, k) {
			return nil, fmt.Errorf("a bucket's URL has no parameter %q: want endpoint, region, retain", k)
		}
	}
	b := &bucket{name: u.Host, prefix: strings.Trim(u.Path, "/"), now: c.Now}
	if b.prefix != "" {
		if err := checkName(b.prefix); err != nil {
			return nil, err
		}
		b.prefix += "/"
	}
	days, err := strconv.Atoi(strings.TrimSuffix(or(q.Get("retain"), "2190d"), "d"))
	if err != nil || days < 1 || days > 36500 || b.name == "" || u.User != nil {
		return nil, errors.New("a bucket's URL must be s3://bucket/prefix, with retain in days such as 2190d, and without a password")
	}
	b.retain = time.Duration(days) * 24 * time.Hour
	endpoint, err := url.Parse(or(q.Get("endpoint"), "https://s3.amazonaws.com"))
	if err != nil || endpoint.Host == "" || strings.Trim(endpoint.Path, "/") != "" || endpoint.Scheme != "https" && !(endpoint.Scheme == "http" && c.Outbound.Dev) {
		return nil, errors.New("the endpoint of a bucket must be https://host")
	}
	transport := outbound.NewTransport(c.Outbound)
	b.close = transport.CloseIdleConnections
	b.client, err = minio.New(endpoint.Host, &minio.Options{
		Secure: endpoint.Scheme == "https", Region: q.Get("region"), Transport: transport, MaxRetries: 3,
		Creds: credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{}}),
	})
	if err != nil {
		return nil, errors.New("the endpoint of a bucket must be https://host")
	}
	return b, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (b *bucket) Close() error {
	b.close()
	return nil
}

// Put sends the object with its SHA-256, which the store checks, and asks then
// whether the store has locked it: one that does not know object lock takes
// the words and does nothing.
func (b *bucket) Put(ctx context.Context, name string, data []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	until := b.now().Add(b.retain).UTC().Truncate(time.Second)
	sum := sha256.Sum256(data)
	options := minio.PutObjectOptions{
		ContentType: "application/octet-stream", Mode: minio.Compliance, RetainUntilDate: until, DisableMultipart: true,
		UserMetadata: map[string]string{"X-Amz-Checksum-Sha256": base64.StdEncoding.EncodeToString(sum[:])},
	}
	options.SetMatchETagExcept("*") // only if there is nothing
	info, err := b.client.PutObject(ctx, b.name, b.prefix+name, bytes.NewReader(data), int64(len(data)), options)
	switch code := minio.ToErrorResponse(err).Code; {
	case err == nil:
	case code == minio.PreconditionFailed:
		info, err = b.same(ctx, name, data)
	case code == "InvalidRequest" && strings.Contains(strings.ToLower(err.Error()), "lock"):
		err = ErrNotLocked
	}
	if err == nil {
		err = b.locked(ctx, info)
	}
	if err != nil {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	return nil
}

// same reports ErrExists unless the first version is these data.
func (b *bucket) same(ctx context.Context, name string, data []byte) (minio.UploadInfo, error) {
	version, there, err := b.first(ctx, name)
	if err == nil && !bytes.Equal(there, data) {
		err = &ExistsError{There: there}
	}
	return minio.UploadInfo{Key: b.prefix + name, VersionID: version}, err
}

// locked reports ErrNotLocked unless the store says of the version that nobody
// can take it away: in compliance mode, until the time. One that was put
// earlier is free earlier. The headers are asked for and not the retention
// itself: stores differ in how they write that.
func (b *bucket) locked(ctx context.Context, put minio.UploadInfo) error {
	info, err := b.client.StatObject(ctx, b.name, put.Key, minio.StatObjectOptions{VersionID: put.VersionID})
	if err != nil {
		return fmt.Errorf("asking for the lock: %w", err)
	}
	until, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	if err != nil || info.Metadata.Get("X-Amz-Object-Lock-Mode") != string(minio.Compliance) || !until.After(b.now()) {
		return ErrNotLocked
	}
	return nil
}

func (b *bucket) Get(ctx context.Context, name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, data, err := b.first(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return data, nil
}

// first returns the oldest version: what somebody put over it, or a marker
// that it was deleted, does not count.
func (b *bucket) first(ctx context.Context, name string) (version string, data []byte, err error) {
	var oldest *minio.ObjectInfo
	for o := range b.client.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix + name, Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			return "", nil, o.Err
		}
		if o.Key == b.prefix+name && !o.IsDeleteMarker && (oldest == nil || !o.LastModified.After(oldest.LastModified)) {
			oldest = &o // of the same second, the later in the list: it lists the newest first
		}
	}
	if oldest == nil {
		return "", nil, ErrNotFound
	}
	r, err := b.client.GetObject(ctx, b.name, b.prefix+name, minio.GetObjectOptions{VersionID: oldest.VersionID})
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = r.Close() }()
	data, err = io.ReadAll(io.LimitReader(r, maxObject))
	return oldest.VersionID, data, err
}

func (b *bucket) List(ctx context.Context, prefix string) (out []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*patience)
	defer cancel()
	for o := range b.client.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix + prefix, Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			return nil, fmt.Errorf("listing: %w", o.Err)
		}
		if name := strings.TrimPrefix(o.Key, b.prefix); !o.IsDeleteMarker && checkName(name) == nil {
			out = append(out, path.Clean(name))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
