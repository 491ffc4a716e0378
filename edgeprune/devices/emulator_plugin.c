/*
 * Counts the instructions of the emulated program, exactly.
 *
 * At each mark, one line goes into QEMU's log (-d plugin -D FILE): "mark COUNT". COUNT is the number of instructions
 * since the start of the program. Compiled on the user's machine.
 */
#include "emulator_plugin.h"

static uint64_t count;

static void block_runs(unsigned int cpu, void *instructions) { count += (uintptr_t)instructions; }

static void block_translated(uint64_t plugin, struct qemu_plugin_tb *block) {
    qemu_plugin_register_vcpu_tb_exec_cb(block, block_runs, 0, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void system_call(uint64_t plugin, unsigned int cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    char line[40];
    if (number != FACCESSAT || (uint32_t)a3 != MARK) return;
    snprintf(line, sizeof line, "mark %" PRIu64 "\n", count);
    qemu_plugin_outs(line);
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}
