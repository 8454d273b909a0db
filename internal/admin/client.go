package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const maxFailure = 64 << 10 // bytes of an error's body that are read

// Client talks to the admin endpoint of one node. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// NewClient makes a client of the endpoint at address (host:port). No proxy is used, whatever the environment says.
func NewClient(address string) *Client {
	return &Client{base: "http://" + address, http: &http.Client{Transport: &http.Transport{IdleConnTimeout: 10 * time.Second}}}
}

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Get reads a key. linearizable waits for all that was acknowledged anywhere; otherwise the node's setting decides.
func (c *Client) Get(ctx context.Context, key string, linearizable bool) (value []byte, found bool, err error) {
	body, err := c.do(ctx, http.MethodGet, keyPath(key)+consistency(linearizable), nil)
	var f *Failure
	if errors.As(err, &f) && f.SQLState == codeNoData {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = body.Close() }()
	value, err = io.ReadAll(body)
	return value, err == nil, err
}

// Set stores a value.
func (c *Client) Set(ctx context.Context, key string, value []byte) error {
	return c.discard(c.do(ctx, http.MethodPut, keyPath(key), value))
}

// Delete removes a key; one that is not there is no error.
func (c *Client) Delete(ctx context.Context, key string) error {
	return c.discard(c.do(ctx, http.MethodDelete, keyPath(key), nil))
}

// List calls yield for every entry, by key, until it returns an error.
func (c *Client) List(ctx context.Context, linearizable bool, yield func(Entry) error) error {
	body, err := c.do(ctx, http.MethodGet, "/v1/keys"+consistency(linearizable), nil)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	d := json.NewDecoder(body)
	for _, want := range []string{"{", "keys", "["} {
		token, err := d.Token()
		if err != nil {
			return cutOff(err)
		}
		if got := fmt.Sprint(token); got != want {
			return fmt.Errorf("the answer is not a list of keys: %q where %q should be", got, want)
		}
	}
	for d.More() {
		var e Entry
		if err := d.Decode(&e); err != nil {
			return cutOff(err)
		}
		if err := yield(e); err != nil {
			return err
		}
	}
	_, err = d.Token() // the list's end tells that nothing is missing
	return cutOff(err)
}

// cutOff names the end of an answer that came too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Status asks for the node's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	body, err := c.do(ctx, http.MethodGet, "/v1/status", nil)
	if err != nil {
		return s, err
	}
	defer func() { _ = body.Close() }()
	return s, json.NewDecoder(body).Decode(&s)
}

// Readiness asks whether the node is ready. That it is not is no error.
func (c *Client) Readiness(ctx context.Context) (Readiness, error) {
	var r Readiness
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/readyz", nil)
	if err != nil {
		return r, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return r, plain(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
		return r, failure(resp)
	}
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

// do sends a request and gives the body of a good answer, which the caller closes.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, plain(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	return nil, failure(resp)
}

func (c *Client) discard(body io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	return body.Close()
}

// failure reads the error out of an answer.
func failure(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxFailure))
	f := &Failure{}
	if err != nil || json.Unmarshal(b, f) != nil || f.Message == "" {
		return fmt.Errorf("unexpected answer %s: %.200q", resp.Status, b)
	}
	return f
}

// plain drops the method and the URL that the HTTP client puts before what went wrong.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// keyPath encodes a key so that nothing on the way takes it for path segments.
func keyPath(key string) string {
	return "/v1/keys/" + strings.ReplaceAll(url.PathEscape(key), ".", "%2E")
}

func consistency(linearizable bool) string {
	if linearizable {
		return "?consistency=linearizable"
	}
	return ""
}
