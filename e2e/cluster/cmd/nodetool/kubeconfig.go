package main

import "encoding/json"

// kubeconfig is written as JSON, which every reader of YAML takes: nothing needs escaping by hand.
func kubeconfig(cluster, server, user string, authority, certificate, key []byte) ([]byte, error) {
	type object = map[string]any
	return json.MarshalIndent(object{
		"apiVersion": "v1",
		"kind":       "Config",
		"clusters": []object{{"name": cluster, "cluster": object{
			"server":                     "https://" + server + ":6443",
			"certificate-authority-data": authority,
		}}},
		"users": []object{{"name": user, "user": object{
			"client-certificate-data": certificate,
			"client-key-data":         key,
		}}},
		"contexts":        []object{{"name": cluster, "context": object{"cluster": cluster, "user": user}}},
		"current-context": cluster,
	}, "", "  ")
}
