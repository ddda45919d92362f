//! What puts the window's picture into the window: pixels (wgpu) where there is a graphics adapter, softbuffer where there is
//! none. Both get the same pixels, so that what is shown does not depend on which it is.

use crate::WindowError;
use pixels::wgpu;
use pixels::{Pixels, PixelsBuilder, SurfaceTexture};
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use winit::window::Window;

/// Which presenter is wanted.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// A graphics adapter if there is one; not one that is software itself.
    #[default]
    Auto,
    /// A graphics adapter of any kind, or no window.
    Gpu,
    /// None.
    Software,
}

/// The window's picture, 00RRGGBBh line by line.
#[derive(Copy, Clone)]
pub struct Picture<'p> {
    /// Width and height, both at least 1.
    pub size: (u32, u32),
    /// That many pixels.
    pub pixels: &'p [u32],
}

/// Shows pictures.
pub trait Presenter {
    /// What it is, for messages.
    fn name(&self) -> String;
    /// Shows a picture of which only these lines differ from the one before, if that had the same size.
    fn present(&mut self, picture: Picture<'_>, changed: Range<usize>) -> Result<(), String>;
}

/// The presenter for a window.
pub fn open(window: &Arc<Window>, backend: Backend) -> Result<Box<dyn Presenter>, WindowError> {
    let mut problem = String::new();
    if backend != Backend::Software {
        match Gpu::open(window, backend) {
            Ok(gpu) => return Ok(Box::new(gpu)),
            Err(error) if backend == Backend::Gpu => return Err(WindowError::NoAdapter(error)),
            Err(error) => problem = error,
        }
        tracing::info!(target: "window", "{problem}: drawing in software");
    }
    match Software::open(window) {
        Ok(software) => Ok(Box::new(software)),
        Err(error) if problem.is_empty() => Err(WindowError::NoAdapter(error)),
        Err(error) => Err(WindowError::NoAdapter(format!("{problem}; {error}"))),
    }
}

struct Gpu {
    pixels: Pixels<'static>,
    size: (u32, u32),
}

impl Gpu {
    fn open(window: &Arc<Window>, backend: Backend) -> Result<Gpu, String> {
        let size = window.inner_size();
        let size = (size.width.max(1), size.height.max(1));
        let surface = SurfaceTexture::new(size.0, size.1, window.clone());
        // What is in the buffer is what is shown: no colour space in between. The event loop keeps the pace, not vsync, which
        // would hold the thread that also takes the keys.
        let pixels = PixelsBuilder::new(size.0, size.1, surface)
            .texture_format(wgpu::TextureFormat::Rgba8Unorm)
            .surface_texture_format(wgpu::TextureFormat::Bgra8Unorm)
            .enable_vsync(false)
            .build()
            .map_err(|error| error.to_string())?;
        if backend == Backend::Auto && pixels.adapter().get_info().device_type == wgpu::DeviceType::Cpu {
            return Err("the only graphics adapter is software".to_owned());
        }
        Ok(Gpu { pixels, size })
    }
}

impl Presenter for Gpu {
    fn name(&self) -> String {
        let info = self.pixels.adapter().get_info();
        format!("pixels on {} ({})", info.name, info.backend)
    }
    fn present(&mut self, picture: Picture<'_>, changed: Range<usize>) -> Result<(), String> {
        let (width, height) = picture.size;
        let mut changed = changed;
        if picture.size != self.size {
            self.pixels.resize_surface(width, height).map_err(|error| error.to_string())?;
            self.pixels.resize_buffer(width, height).map_err(|error| error.to_string())?;
            self.size = picture.size;
            changed = 0..height as usize;
        }
        let part = changed.start * width as usize..changed.end * width as usize;
        let to = self.pixels.frame_mut().as_chunks_mut::<4>().0.get_mut(part.clone()).unwrap_or(&mut []);
        for (to, &from) in to.iter_mut().zip(picture.pixels.get(part).unwrap_or(&[])) {
            let [_, red, green, blue] = from.to_be_bytes();
            *to = [red, green, blue, 0xFF];
        }
        self.pixels.render().map_err(|error| error.to_string())
    }
}

struct Software {
    surface: softbuffer::Surface<Arc<Window>, Arc<Window>>,
    size: (u32, u32),
}

impl Software {
    fn open(window: &Arc<Window>) -> Result<Software, String> {
        let context = softbuffer::Context::new(window.clone()).map_err(|error| error.to_string())?;
        let surface = softbuffer::Surface::new(&context, window.clone()).map_err(|error| error.to_string())?;
        Ok(Software { surface, size: (0, 0) })
    }
    fn show(&mut self, picture: Picture<'_>, changed: Range<usize>) -> Result<(), softbuffer::SoftBufferError> {
        let (Some(width), Some(height)) = (NonZeroU32::new(picture.size.0), NonZeroU32::new(picture.size.1)) else {
            return Ok(());
        };
        let mut all = self.size != picture.size;
        if all {
            self.surface.resize(width, height)?;
            self.size = picture.size;
        }
        let mut buffer = self.surface.buffer_mut()?;
        // Another age than 1: the buffer does not hold the picture before this one.
        all |= buffer.age() != 1;
        let copied = if all { 0..height.get() as usize } else { changed };
        let part = copied.start * width.get() as usize..copied.end * width.get() as usize;
        if let (Some(to), Some(from)) = (buffer.get_mut(part.clone()), picture.pixels.get(part)) {
            to.copy_from_slice(from);
        }
        match NonZeroU32::new(copied.len() as u32) {
            Some(lines) => {
                let damage = softbuffer::Rect { x: 0, y: copied.start as u32, width, height: lines };
                buffer.present_with_damage(&[damage])
            }
            // Asked to draw though nothing differs: the window system lost what it had.
            None => buffer.present(),
        }
    }
}

impl Presenter for Software {
    fn name(&self) -> String {
        "softbuffer".to_owned()
    }
    fn present(&mut self, picture: Picture<'_>, changed: Range<usize>) -> Result<(), String> {
        self.show(picture, changed).map_err(|error| error.to_string())
    }
}
