package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The cluster lives as long as somebody tests; its credentials may not end before.
const lifetime = 365 * 24 * time.Hour

// writeCredentials fills dir with what the components know each other by. The first of nodes ("NAME=IP") runs the
// control plane; service is the address of the Service "kubernetes".
func writeCredentials(dir, cluster, service string, nodes []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := newAuthority(dir, "ca")
	if err != nil {
		return err
	}
	// Aggregated API servers trust whoever this CA vouches for, so it is one of its own.
	front, err := newAuthority(dir, "front-proxy-ca")
	if err != nil {
		return err
	}
	if err := front.issue(dir, leaf{file: "front-proxy-client", name: "front-proxy-client"}); err != nil {
		return err
	}
	if err := writeTokenKeys(dir); err != nil {
		return err
	}

	_, server, _ := strings.Cut(nodes[0], "=")
	leaves := []leaf{
		{file: "apiserver", name: "kube-apiserver", hosts: []string{
			server, service, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default",
			"kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		}},
		{file: "apiserver-kubelet-client", name: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
		{file: "admin", name: "admin", groups: []string{"system:masters"}, user: true},
		{file: "controller-manager", name: "system:kube-controller-manager", user: true},
		{file: "scheduler", name: "system:kube-scheduler", user: true},
		{file: "kube-proxy", name: "system:kube-proxy", user: true},
	}
	for _, node := range nodes {
		name, address, found := strings.Cut(node, "=")
		if !found || net.ParseIP(address) == nil {
			return fmt.Errorf("nodetool: %q is not NODE=IP", node)
		}
		leaves = append(leaves, leaf{
			file: "node-" + name, name: "system:node:" + name, groups: []string{"system:nodes"},
			hosts: []string{name, address}, user: true,
		})
	}
	for _, l := range leaves {
		if err := root.issue(dir, l); err != nil {
			return err
		}
		if l.user {
			if err := writeKubeconfig(dir, cluster, server, l.file); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaf is one certificate to issue.
type leaf struct {
	file   string   // name of the files, without ending
	name   string   // common name: the user
	groups []string // organizations: the user's groups
	hosts  []string // names and addresses it serves under; none for a client's
	user   bool     // a kubeconfig is wanted too
}

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	dir, file   string
}

func newAuthority(dir, file string) (*authority, error) {
	key, err := newKey(filepath.Join(dir, file+".key"))
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(file, nil)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{certificate: certificate, key: key, dir: dir, file: file}, writePEM(filepath.Join(dir, file+".crt"), "CERTIFICATE", der, 0o644)
}

func (a *authority) issue(dir string, l leaf) error {
	key, err := newKey(filepath.Join(dir, l.file+".key"))
	if err != nil {
		return err
	}
	template, err := newTemplate(l.name, l.groups)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(l.hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, host := range l.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, l.file+".crt"), "CERTIFICATE", der, 0o644)
}

func newTemplate(name string, groups []string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: groups},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(lifetime),
	}, nil
}

// writeTokenKeys writes the pair by which service-account tokens are signed and checked.
func writeTokenKeys(dir string) error {
	key, err := newKey(filepath.Join(dir, "sa.key"))
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, "sa.pub"), "PUBLIC KEY", der, 0o644)
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "EC PRIVATE KEY", der, 0o600)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

// writeKubeconfig embeds the credentials, so that the file can be copied elsewhere alone.
func writeKubeconfig(dir, cluster, server, user string) error {
	data := map[string][]byte{}
	for _, file := range []string{"ca.crt", user + ".crt", user + ".key"} {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		data[file] = content
	}
	text, err := kubeconfig(cluster, server, user, data["ca.crt"], data[user+".crt"], data[user+".key"])
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, user+".kubeconfig"), text, 0o600)
}
