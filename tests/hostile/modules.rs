//! Components that no compiler makes: a sound one with hostile core modules added to it, and one that imports everything.
//!
//! A component is a row of sections, each an id, a length and its content. What is added at the end is instantiated after the rest, with
//! the first instance that the host makes.

/// The component and, after it, a core module that is instantiated so many times.
pub fn with_module(component: &[u8], module: &[u8], instances: u32) -> Vec<u8> {
    let number = core_modules(component);
    // instantiate the module, without arguments
    let instance = [vec![0x00], unsigned(number), vec![0x00]].concat();
    let all = [unsigned(instances), instance.repeat(instances as usize)].concat();
    [component.to_vec(), section(1, module), section(2, &all)].concat()
}

/// How many core modules a component has at its top.
fn core_modules(component: &[u8]) -> u32 {
    let (mut rest, mut modules) = (&component[8..], 0);
    while let Some((id, after)) = rest.split_first() {
        let (mut length, mut shift, mut read) = (0usize, 0, 0);
        for byte in after {
            (length, shift, read) = (length | usize::from(byte & 0x7f) << shift, shift + 7, read + 1);
            if byte & 0x80 == 0 {
                break;
            }
        }
        modules += u32::from(*id == 1);
        rest = &after[read + length..];
    }
    modules
}

/// A component that imports a function of each of these interfaces and says that it is a plugin.
pub fn importing(names: &[&str]) -> Vec<u8> {
    // An instance type with one function without parameters and results.
    let function = [vec![0x01], vec![0x40, 0x00, 0x01, 0x00]].concat();
    let export = [vec![0x04], name("f"), vec![0x01, 0x00]].concat();
    let instance_type = [vec![0x42], vec![0x02], function, export].concat();
    let types = [vec![0x01], instance_type].concat();
    let import = |of: &&str| [name(of), vec![0x05, 0x00]].concat();
    let imports = [unsigned(names.len() as u32), names.iter().flat_map(import).collect()].concat();
    // An instance with nothing in it, which comes after the imported ones, under both names.
    let empty = [0x01, 0x01, 0x00];
    let export = |of: &str| [name(of), vec![0x05], unsigned(names.len() as u32), vec![0x00]].concat();
    let exports = [vec![0x02], export("pelton:plugin/plugin@0.1.0"), export("pelton:plugin/do-fn@0.1.0")].concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(7, &types), section(10, &imports), section(5, &empty), section(11, &exports)].concat()
}

/// The name of an import or export of a component.
fn name(name: &str) -> Vec<u8> {
    [vec![0x00], unsigned(name.len() as u32), name.as_bytes().to_vec()].concat()
}

/// What a core module has.
#[derive(Default)]
pub struct Module {
    /// Bodies of functions without parameters and results: locals and code.
    pub functions: Vec<Vec<u8>>,
    /// The limits of its memory, as they are encoded.
    pub memory: Option<Vec<u8>>,
    /// The least elements of its table.
    pub table: Option<u32>,
    /// The first function runs when it is instantiated.
    pub starts: bool,
    /// Bytes of data.
    pub data: usize,
}

impl Module {
    /// A module whose first function, with this code, runs when it is instantiated.
    pub fn starting(code: &[u8]) -> Module {
        Module { functions: vec![body(code)], starts: true, ..Module::default() }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        let count = unsigned(self.functions.len() as u32);
        module.extend(section(1, &[0x01, 0x60, 0x00, 0x00]));
        module.extend(section(3, &[count.clone(), vec![0; self.functions.len()]].concat()));
        if let Some(least) = self.table {
            module.extend(section(4, &[vec![0x01, 0x70, 0x00], unsigned(least)].concat()));
        }
        if let Some(limits) = &self.memory {
            module.extend(section(5, &[vec![0x01], limits.clone()].concat()));
        }
        if self.starts {
            module.extend(section(8, &[0x00]));
        }
        let bodies = self.functions.iter().flat_map(|body| [unsigned(body.len() as u32), body.clone()].concat());
        module.extend(section(10, &[count, bodies.collect()].concat()));
        if self.data > 0 {
            // One passive segment.
            module.extend(section(11, &[vec![0x01, 0x01], unsigned(self.data as u32), vec![7; self.data]].concat()));
        }
        module
    }
}

/// A function without locals.
pub fn body(code: &[u8]) -> Vec<u8> {
    [vec![0x00], code.to_vec(), vec![0x0b]].concat()
}

/// A function of many locals and branches, over all of which the compiler has to think: `blocks` of them.
pub fn tangled(blocks: u32) -> Vec<u8> {
    let locals = 200;
    let mut code = [vec![0x01], unsigned(locals), vec![0x7e]].concat();
    for block in 0..blocks {
        let local = |which: u32| unsigned((block.wrapping_mul(7) + which * 13) % locals);
        // if a == 0 { b = c * a + c }
        code.extend(
            [vec![0x20], local(0), vec![0x50, 0x04, 0x40, 0x20], local(2), vec![0x20], local(0), vec![0x7e, 0x20], local(2)].concat(),
        );
        code.extend([vec![0x7c, 0x21], local(1), vec![0x0b]].concat());
    }
    code.push(0x0b);
    code
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [vec![id], unsigned(content.len() as u32), content.to_vec()].concat()
}

/// LEB128.
pub fn unsigned(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
