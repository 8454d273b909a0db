/*
 * Reading the table of a raftproxy from its shared-memory segment, without locks,
 * system calls or a connection. Compile raftable_shm.c into your program; it
 * needs C11 and GCC or Clang on a little-endian Linux.
 *
 * A handle belongs to one thread at a time; threads that read at the same time
 * open one each. See docs/shared-memory.md.
 */
#ifndef RAFTABLE_SHM_H
#define RAFTABLE_SHM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct raftable raftable;

/*
 * raftable_open maps the segment at path. On failure it returns NULL with errno:
 * EPROTONOSUPPORT for another layout version, EBADMSG for a file that is damaged
 * or no segment, else what the system said.
 */
raftable *raftable_open(const char *path);

/* raftable_close unmaps; every pointer got from t is invalid afterwards. */
void raftable_close(raftable *t);

/*
 * raftable_get returns the value of key, a string ending in NUL that is valid
 * until the next call with t, or NULL if there is none. Values that contain NULs
 * need the length, which goes to *value_len unless that is NULL.
 */
const char *raftable_get(raftable *t, const char *key, size_t key_len, size_t *value_len);

/*
 * raftable_every calls func for every key, in no particular order, until func
 * returns something else than 0; it returns what func returned last. All calls
 * see the table as it is at one applied index, and so do calls to raftable_get
 * and raftable_every with t from within func. The key does not end in NUL, the
 * value does. Both are valid until func returns. func must not close t.
 */
typedef int (*raftable_func)(const char *key, size_t key_len,
                             const char *value, size_t value_len, void *arg);
int raftable_every(raftable *t, raftable_func func, void *arg);

struct raftable_info {
	uint64_t generation; /* number of the file; grows whenever it is replaced */
	uint64_t applied;    /* last committed index; the next three belong to it */
	uint64_t state_hash; /* equal wherever the content is equal */
	uint64_t keys;
	uint64_t bytes;      /* of all keys and values */
	uint64_t writer_pid; /* 0: the writer has closed the segment in good order */
	uint64_t heartbeat;  /* last sign of life, Unix time in ns; 0: none yet */
};

/* raftable_stat fills info and returns 0, or -1 with errno EBADMSG. */
int raftable_stat(raftable *t, struct raftable_info *info);

/*
 * The layout, as described in shm/layout.go. What is marked atomic changes while
 * the segment is in use.
 */
#define RAFTABLE_MAGIC 0x004d485354464152u /* "RAFTSHM\0" */
#define RAFTABLE_LAYOUT_VERSION 1
#define RAFTABLE_OFFSET_BITS 48
#define RAFTABLE_TOMBSTONE 0x80000000u /* in value_len: the key is deleted */

struct raftable_state {
	uint64_t applied; /* atomic */
	uint64_t hash;    /* atomic */
	uint64_t keys;    /* atomic */
	uint64_t bytes;   /* atomic */
};

struct raftable_header {
	uint64_t magic;
	uint32_t layout;
	uint32_t header_size;
	uint64_t generation;
	uint64_t seed;
	uint64_t slot_count;
	uint64_t arena_offset;
	uint64_t arena_size;
	uint64_t unused0;
	uint64_t superseded; /* atomic */
	uint64_t applied;    /* atomic */
	uint64_t unused1[6];
	uint64_t writer_pid; /* atomic */
	uint64_t heartbeat;  /* atomic */
	uint64_t unused2[6];
	struct raftable_state states[2];
};

struct raftable_record {
	uint64_t index;
	uint64_t prev;
	uint64_t content;
	uint32_t value_len;
	uint32_t key_len;
};

#ifdef __cplusplus
}
#define RAFTABLE_ASSERT(cond) static_assert(cond, #cond)
#else
#define RAFTABLE_ASSERT(cond) _Static_assert(cond, #cond)
#endif

RAFTABLE_ASSERT(sizeof(struct raftable_header) == 256);
RAFTABLE_ASSERT(offsetof(struct raftable_header, magic) == 0);
RAFTABLE_ASSERT(offsetof(struct raftable_header, layout) == 8);
RAFTABLE_ASSERT(offsetof(struct raftable_header, header_size) == 12);
RAFTABLE_ASSERT(offsetof(struct raftable_header, generation) == 16);
RAFTABLE_ASSERT(offsetof(struct raftable_header, seed) == 24);
RAFTABLE_ASSERT(offsetof(struct raftable_header, slot_count) == 32);
RAFTABLE_ASSERT(offsetof(struct raftable_header, arena_offset) == 40);
RAFTABLE_ASSERT(offsetof(struct raftable_header, arena_size) == 48);
RAFTABLE_ASSERT(offsetof(struct raftable_header, superseded) == 64);
RAFTABLE_ASSERT(offsetof(struct raftable_header, applied) == 72);
RAFTABLE_ASSERT(offsetof(struct raftable_header, writer_pid) == 128);
RAFTABLE_ASSERT(offsetof(struct raftable_header, heartbeat) == 136);
RAFTABLE_ASSERT(offsetof(struct raftable_header, states) == 192);

RAFTABLE_ASSERT(sizeof(struct raftable_state) == 32);
RAFTABLE_ASSERT(offsetof(struct raftable_state, applied) == 0);
RAFTABLE_ASSERT(offsetof(struct raftable_state, hash) == 8);
RAFTABLE_ASSERT(offsetof(struct raftable_state, keys) == 16);
RAFTABLE_ASSERT(offsetof(struct raftable_state, bytes) == 24);

RAFTABLE_ASSERT(sizeof(struct raftable_record) == 32);
RAFTABLE_ASSERT(offsetof(struct raftable_record, index) == 0);
RAFTABLE_ASSERT(offsetof(struct raftable_record, prev) == 8);
RAFTABLE_ASSERT(offsetof(struct raftable_record, content) == 16);
RAFTABLE_ASSERT(offsetof(struct raftable_record, value_len) == 24);
RAFTABLE_ASSERT(offsetof(struct raftable_record, key_len) == 28);

#endif
