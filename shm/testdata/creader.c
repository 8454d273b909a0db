/*
 * The test program of the C reader.
 *
 *   creader dump PATH...  prints what each segment holds, in hexadecimal
 *   creader bank PATH     checks the bank of concurrent_test.go until there is a
 *                         key "end"
 */
#define _POSIX_C_SOURCE 200809L

#include "raftable_shm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_hex(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		printf("%02x", (unsigned char)s[i]);
}

/* Prints a pair, and whether raftable_get agrees. */
static int print_pair(const char *key, size_t key_len, const char *value, size_t value_len, void *arg)
{
	size_t got_len = 0;
	const char *got = raftable_get(arg, key, key_len, &got_len);

	print_hex(key, key_len);
	printf("=");
	print_hex(value, value_len);
	if (got == NULL || got_len != value_len || memcmp(got, value, value_len) != 0)
		printf(" but get differs");
	if (value[value_len] != '\0')
		printf(" but it does not end in NUL");
	printf("\n");
	return 0;
}

static void dump(const char *path)
{
	raftable *t = raftable_open(path);
	if (t == NULL) {
		printf("open: %s\n", strerror(errno));
		return;
	}
	struct raftable_info info;
	errno = 0;
	if (raftable_stat(t, &info) == 0)
		printf("generation %" PRIu64 " applied %" PRIu64 " hash %016" PRIx64 " keys %" PRIu64
		       " bytes %" PRIu64 " writer %" PRIu64 " heartbeat %" PRIu64 "\n",
		       info.generation, info.applied, info.state_hash, info.keys, info.bytes,
		       info.writer_pid, info.heartbeat);
	else
		printf("stat: %s\n", strerror(errno));
	raftable_every(t, print_pair, t);
	if (raftable_get(t, "no such key", 11, NULL) != NULL)
		printf("found a key that is not there\n");
	raftable_close(t);
}

static uint32_t crc32(const char *s)
{
	uint32_t crc = 0xffffffff;
	for (; *s != '\0'; s++) {
		crc ^= (unsigned char)*s;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

struct sum {
	raftable *t;
	uint64_t amount, keys, bytes;
	bool torn;
};

static bool torn(const char *value)
{
	char *rest;
	return strtoul(value, &rest, 16) != crc32(rest + 1);
}

static int add(const char *key, size_t key_len, const char *value, size_t value_len, void *arg)
{
	struct sum *s = arg;
	/* Inside raftable_every a get finds the very same record. */
	if (raftable_get(s->t, key, key_len, NULL) != value)
		return 2;
	s->keys++;
	s->bytes += key_len + value_len;
	s->amount += strtoull(value + 9, NULL, 10);
	s->torn = torn(value) || strlen(value) != value_len;
	return s->torn;
}

static int bank(const char *path)
{
	raftable *t = raftable_open(path);
	uint64_t last = 0, rounds = 0, generation = 0;
	if (t == NULL)
		return 2;
	puts("open");
	fflush(stdout);
	for (; raftable_get(t, "end", 3, NULL) == NULL; rounds++) {
		struct raftable_info before, after;
		struct sum s = {.t = t};
		char key[] = "account/00";
		key[9] += rounds % 10;
		const char *value = raftable_get(t, key, 10, NULL);
		if (value != NULL && torn(value)) {
			printf("torn value %s\n", value);
			return 1;
		}
		if (raftable_stat(t, &before) != 0 || before.applied < last || before.generation < generation) {
			printf("index %" PRIu64 " after %" PRIu64 "\n", before.applied, last);
			return 1;
		}
		/* Whatever is said of one index is always the same. */
		for (int i = 0; i < 100; i++) {
			if (raftable_stat(t, &after) != 0 ||
			    (after.applied == before.applied && (after.state_hash != before.state_hash ||
			                                         after.keys != before.keys || after.bytes != before.bytes))) {
				printf("two sorts of counters at index %" PRIu64 "\n", before.applied);
				return 1;
			}
			before = after;
		}
		last = before.applied;
		generation = before.generation;
		if (raftable_every(t, add, &s) != 0 || s.torn || s.amount != 1000000) {
			printf("sum %" PRIu64 ", torn %d\n", s.amount, s.torn);
			return 1;
		}
		raftable_stat(t, &after);
		if (before.applied == after.applied && (s.keys != after.keys || s.bytes != after.bytes)) {
			printf("%" PRIu64 " keys, %" PRIu64 " counted\n", s.keys, after.keys);
			return 1;
		}
	}
	raftable_close(t);
	printf("rounds %" PRIu64 "\n", rounds);
	return rounds > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	alarm(120); /* must not outlive a test that was broken off */
	if (argc > 2 && strcmp(argv[1], "bank") == 0)
		return bank(argv[2]);
	for (int i = 2; i < argc; i++)
		dump(argv[i]);
	return 0;
}
